// Points on a canvas: drawn by deck.gl, found by kdbush.
//
// Nothing is ever picked by deck.gl: that reads the picture back, which takes seconds where the
// machine draws without a graphics card. The nearest point is looked up in a k-d tree instead, so a
// hover costs microseconds and is right before the first frame is drawn.
//
// A frame may take long, too. What moves goes by the clock, and not by the number of frames.

import { classicScript } from "./parts.js";

const GLIDE_MS = 900;
const CENTRE_MS = 260;
const HOVER_PIXELS = 9;
const CLICK_PIXELS = 5;
const PAN_SHARE = 0.15;
const ZOOM_STEP = 0.6;
const MOVED = 0.002;

/** Whether this browser can draw the points at all. */
export function canDraw() {
  try {
    const context = document.createElement("canvas").getContext("webgl2");
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return context !== null;
  } catch {
    return false;
  }
}

/** The CRC-32 of an id's UTF-8 bytes: the key by which a point is known from release to release. */
export function keyOf(id) {
  let found = 0xffffffff;
  for (const byte of new TextEncoder().encode(id)) found = TABLE[(found ^ byte) & 0xff] ^ (found >>> 8);
  return (found ^ 0xffffffff) >>> 0;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, number) => {
  let value = number;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

/** The points of `GET map/{component}`: pairs of float32, then the key of each as uint32. */
export function pointsOf(buffer, count) {
  if (buffer.byteLength !== 12 * count) throw new Error("the map is cut short; load it again");
  const positions = new Float32Array(buffer, 0, 2 * count);
  const keys = new Uint32Array(buffer, 8 * count, count);
  return { count, positions, keys, rows: rowsOf(keys) };
}

function rowsOf(keys) {
  const rows = new Map();
  // Of two ids with one key neither is followed: a wrong path would be worse than none.
  for (let row = 0; row < keys.length; row += 1) rows.set(keys[row], rows.has(keys[row]) ? -1 : row);
  return rows;
}

/** The row of a key; -1: it has none. */
export function rowOf(points, key) {
  return points.rows.get(key) ?? -1;
}

/** How one map differs from the one before. */
export function difference(before, after) {
  let moved = 0;
  let stayed = 0;
  for (let row = 0; row < after.count; row += 1) {
    const was = rowOf(before, after.keys[row]);
    if (was < 0) continue;
    stayed += 1;
    const x = after.positions[2 * row] - before.positions[2 * was];
    const y = after.positions[2 * row + 1] - before.positions[2 * was + 1];
    if (x * x + y * y > MOVED * MOVED) moved += 1;
  }
  return { moved, added: after.count - stayed, gone: before.count - stayed };
}

function isStill() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** A canvas of points in an empty element. Make it with `Scatter.open`, and `close` it. */
export class Scatter {
  static async open(frame, callbacks, view = null) {
    const [{ default: KDBush }] = await Promise.all([
      import("./vendor/kdbush.js"),
      classicScript("vendor/deck.js"),
    ]);
    return new Scatter(frame, callbacks, view, KDBush);
  }

  /**
   * @param callbacks onHover(row | null, x, y), onPick(row | null), onView(), onLine(places | null)
   *     while a line is drawn, onLasso(rows) once it is, onError(error), onLost() where the browser
   *     took the picture away: close it then, and open another.
   * @param view where one looks, of another such canvas; null: at all of it.
   */
  constructor(frame, callbacks, view, KDBush) {
    this.frame = frame;
    this.callbacks = callbacks;
    this.KDBush = KDBush;
    this.points = null;
    this.shown = null; // positions as they are drawn, on their way perhaps
    this.colours = null;
    this.lit = null;
    this.best = 0;
    this.focus = -1;
    this.ink = { lit: [0, 0, 0], ring: [0, 0, 0], ground: [255, 255, 255] };
    this.tree = null;
    this.view = view ?? { target: [0, 0, 0], zoom: 7, minZoom: 4, maxZoom: 22 };
    this.fitted = view === null;
    this.lassoing = false;
    this.down = null; // where the pointer was pressed
    this.line = null; // what it draws since then
    this.gl = null;
    this.closed = false;
    this.timers = new Map();
    this.listeners = new AbortController();
    const deck = globalThis.deck;
    this.deck = new deck.Deck({
      parent: frame,
      views: new deck.OrthographicView({ flipY: false }),
      controller: { keyboard: false, dragRotate: false, inertia: isStill() ? 0 : 250 },
      viewState: this.view,
      useDevicePixels: Math.min(devicePixelRatio || 1, 2),
      layers: [],
      getCursor: ({ isDragging }) => (isDragging ? "grabbing" : "crosshair"),
      onViewStateChange: ({ viewState }) => {
        this.fitted = false;
        this.look(viewState);
      },
      // The map around it is what takes the keyboard, and has a name.
      onLoad: () => frame.querySelectorAll("[tabindex]").forEach((each) => (each.tabIndex = -1)),
      onWebGLInitialized: (gl) => {
        this.gl = gl;
        if (this.closed) setTimeout(() => this.release());
      },
      onResize: () => (this.fitted ? this.fit(false) : this.draw()),
      onError: (error) => callbacks.onError(error),
    });
    this.listen();
  }

  close() {
    this.closed = true;
    this.listeners.abort();
    for (const timer of this.timers.values()) cancelAnimationFrame(timer);
    // What is not there yet is given back when it comes.
    if (this.gl !== null) this.release();
  }

  /** Give the context back at once: a browser has some 16, and takes the oldest away from its map. */
  release() {
    this.deck.finalize();
    this.gl.canvas.remove();
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  // ---- what is shown ----

  /**
   * Show these points in these colours, and none of them lit; `glide`: from where each of them was,
   * unless motion is not wanted.
   */
  setPoints(points, colours, { glide = false } = {}) {
    this.stop("glide");
    const before = this.points;
    const drawn = this.shown;
    this.points = points;
    this.shown = points.positions;
    this.colours = colours;
    this.lit = null;
    this.tree = new this.KDBush(Math.max(1, points.count), 64, Float32Array);
    for (let row = 0; row < points.count; row += 1) {
      this.tree.add(points.positions[2 * row], points.positions[2 * row + 1]);
    }
    if (points.count === 0) this.tree.add(Infinity, Infinity);
    this.tree.finish();
    this.focus = -1;
    this.box = null;
    if (before === null) {
      if (this.fitted) this.fit(false);
      else this.look(this.view);
      this.draw();
      return;
    }
    if (!glide || isStill()) {
      if (this.fitted) this.fit();
      this.draw();
      return;
    }
    const from = new Float32Array(points.positions);
    for (let row = 0; row < points.count; row += 1) {
      const was = rowOf(before, points.keys[row]);
      if (was >= 0) from.set(drawn.subarray(2 * was, 2 * was + 2), 2 * row);
    }
    this.shown = from;
    // Who saw all of it still does.
    if (this.fitted) this.fit();
    this.tween("glide", GLIDE_MS, (share) => {
      if (share >= 1) {
        this.shown = points.positions;
      } else {
        const now = new Float32Array(from.length);
        for (let at = 0; at < now.length; at += 1) {
          now[at] = from[at] + (points.positions[at] - from[at]) * share;
        }
        this.shown = now;
      }
      this.draw();
    });
  }

  /** Four bytes a point: red, green, blue, alpha. */
  setColours(colours) {
    this.colours = colours;
    this.draw();
  }

  /** The points that stand out, the first `best` of them most; null: none does. */
  setLit(rows, best = 0) {
    this.lit = rows;
    this.best = best;
    this.draw();
  }

  /** The one point with a ring; -1: none. */
  setFocus(row) {
    this.focus = row;
    this.draw();
  }

  /** Colours of what is laid over the points: {lit, ring, ground}, each [r, g, b]. */
  setInk(ink) {
    this.ink = ink;
    this.draw();
  }

  draw() {
    const { points, shown, colours } = this;
    if (points === null || colours === null || colours.length !== 4 * points.count) return;
    const { ScatterplotLayer } = globalThis.deck;
    const size = this.pointPixels();
    const layers = [
      new ScatterplotLayer({
        id: "points",
        data: {
          length: points.count,
          attributes: {
            getPosition: { value: shown, size: 2 },
            getFillColor: { value: colours, size: 4, normalized: true },
          },
        },
        radiusUnits: "pixels",
        getRadius: 1,
        radiusScale: size,
        antialiasing: true,
        pickable: false,
      }),
    ];
    const place = (row) => [shown[2 * row], shown[2 * row + 1]];
    if (this.lit !== null && this.lit.length > 0) {
      layers.push(
        new ScatterplotLayer({
          id: "lit",
          data: Array.from(this.lit, place),
          getPosition: (each) => each,
          radiusUnits: "pixels",
          getRadius: (_, { index }) => Math.max(index < this.best ? 6 : 3.5, size + 2),
          stroked: true,
          lineWidthUnits: "pixels",
          getLineWidth: 1.5,
          getFillColor: this.ink.lit,
          getLineColor: this.ink.ground,
          updateTriggers: { getRadius: [size, this.best], getFillColor: this.ink, getLineColor: this.ink },
          pickable: false,
        }),
      );
    }
    if (this.focus >= 0) {
      layers.push(
        new ScatterplotLayer({
          id: "focus",
          data: [place(this.focus)],
          getPosition: (each) => each,
          radiusUnits: "pixels",
          getRadius: Math.max(8, size + 5),
          filled: false,
          stroked: true,
          lineWidthUnits: "pixels",
          getLineWidth: 2.5,
          getLineColor: this.ink.ring,
          updateTriggers: { getRadius: size, getLineColor: this.ink },
          pickable: false,
        }),
      );
    }
    this.deck.setProps({ layers });
  }

  /** The radius of a point: more when they lie apart, less in a small picture. */
  pointPixels() {
    const beyond = this.view.zoom - this.fitZoom();
    const crowd = this.points.count > 20000 ? 1.3 : this.points.count > 2000 ? 2 : 3.2;
    const small = Math.min(1, Math.max(0.6, Math.min(this.width, this.height) / 520));
    return Math.min(9, crowd * small * 2 ** (Math.max(0, beyond) / 2.2));
  }

  // ---- where one looks ----

  get width() {
    return Math.max(1, this.frame.clientWidth);
  }

  get height() {
    return Math.max(1, this.frame.clientHeight);
  }

  look(view) {
    const resized = view.zoom !== this.view.zoom;
    this.view = view;
    this.deck.setProps({ viewState: view });
    if (resized) this.draw();
    this.callbacks.onView();
  }

  bounds() {
    const { positions, count } = this.points ?? { positions: [], count: 0 };
    let [left, bottom, right, top] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let row = 0; row < count; row += 1) {
      const x = positions[2 * row];
      const y = positions[2 * row + 1];
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < bottom) bottom = y;
      if (y > top) top = y;
    }
    return count === 0 ? [-1, -1, 1, 1] : [left, bottom, right, top];
  }

  fitZoom() {
    const [left, bottom, right, top] = (this.box ??= this.bounds());
    const across = this.width / Math.max(0.02, (right - left) * 1.08);
    const up = this.height / Math.max(0.02, (top - bottom) * 1.08);
    return Math.log2(Math.min(across, up));
  }

  /** See all of it. */
  fit(smooth = true) {
    if (this.points === null) return;
    this.box = this.bounds();
    const [left, bottom, right, top] = this.box;
    const zoom = this.fitZoom();
    const view = {
      ...this.view,
      minZoom: zoom - 1.5,
      maxZoom: zoom + 12,
      zoom,
      target: [(left + right) / 2, (bottom + top) / 2, 0],
    };
    this.move(view, smooth);
    this.fitted = true;
  }

  zoomBy(steps) {
    const zoom = this.view.zoom + steps * ZOOM_STEP;
    this.fitted = false;
    this.move({ ...this.view, zoom: Math.min(this.view.maxZoom, Math.max(this.view.minZoom, zoom)) });
  }

  panBy(across, up) {
    const scale = 2 ** this.view.zoom;
    const [x, y] = this.view.target;
    const target = [x + (across * PAN_SHARE * this.width) / scale, y + (up * PAN_SHARE * this.height) / scale, 0];
    this.fitted = false;
    this.move({ ...this.view, target });
  }

  /** Bring a point into the picture, near enough to see what is around it. */
  centre(row) {
    const target = [this.points.positions[2 * row], this.points.positions[2 * row + 1], 0];
    this.fitted = false;
    this.move({ ...this.view, target, zoom: Math.max(this.view.zoom, this.fitZoom() + 1.6) });
  }

  /** Bring some points into the picture. */
  frameRows(rows) {
    if (rows.length === 0) return;
    let [left, bottom, right, top] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const row of rows) {
      left = Math.min(left, this.points.positions[2 * row]);
      right = Math.max(right, this.points.positions[2 * row]);
      bottom = Math.min(bottom, this.points.positions[2 * row + 1]);
      top = Math.max(top, this.points.positions[2 * row + 1]);
    }
    const across = this.width / Math.max(1e-6, (right - left) * 1.3);
    const up = this.height / Math.max(1e-6, (top - bottom) * 1.3);
    const zoom = Math.min(Math.log2(Math.min(across, up)), this.fitZoom() + 5);
    this.fitted = false;
    this.move({ ...this.view, target: [(left + right) / 2, (bottom + top) / 2, 0], zoom });
  }

  move(view, smooth = true) {
    if (!smooth || isStill()) {
      this.stop("move");
      this.look(view);
      return;
    }
    const from = this.view;
    const between = (one, other, share) => one + (other - one) * share;
    this.tween("move", CENTRE_MS, (share) =>
      this.look({
        ...view,
        zoom: between(from.zoom, view.zoom, share),
        target: [0, 1].map((axis) => between(from.target[axis], view.target[axis], share)).concat(0),
      }),
    );
  }

  tween(name, milliseconds, step) {
    this.stop(name);
    const began = performance.now();
    const turn = () => {
      const share = Math.min(1, (performance.now() - began) / milliseconds);
      if (share < 1) this.timers.set(name, requestAnimationFrame(turn));
      else this.timers.delete(name);
      step(share < 1 ? 1 - (1 - share) ** 3 : 1);
    };
    turn();
  }

  stop(name) {
    cancelAnimationFrame(this.timers.get(name));
    this.timers.delete(name);
  }

  // ---- which points ----

  at(x, y) {
    const scale = 2 ** this.view.zoom;
    const [across, up] = this.view.target;
    return [across + (x - this.width / 2) / scale, up - (y - this.height / 2) / scale];
  }

  /** The point under a place on the canvas; -1: there is none. */
  nearest(x, y) {
    if (this.points === null || this.points.count === 0) return -1;
    const [left, up] = this.at(x, y);
    const { positions } = this.points;
    let best = -1;
    let least = Infinity;
    for (const row of this.tree.within(left, up, HOVER_PIXELS / 2 ** this.view.zoom)) {
      const away = (positions[2 * row] - left) ** 2 + (positions[2 * row + 1] - up) ** 2;
      if (away < least) [best, least] = [row, away];
    }
    return best;
  }

  /**
   * The rows that are in the picture, those first that are nearest to its middle.
   *
   * @param {(row) => boolean} keep which of them are meant; null: all.
   */
  inView(most, keep = null) {
    if (this.points === null || this.points.count === 0) return { count: 0, rows: [] };
    const [left, top] = this.at(0, 0);
    const [right, bottom] = this.at(this.width, this.height);
    const [x, y] = this.view.target;
    const { positions } = this.points;
    const there = this.tree.range(left, bottom, right, top);
    const rows = keep ? there.filter(keep) : there;
    const away = (row) => (positions[2 * row] - x) ** 2 + (positions[2 * row + 1] - y) ** 2;
    const count = rows.length;
    rows.sort((one, other) => away(one) - away(other));
    return { count, rows: rows.slice(0, most) };
  }

  /** The rows inside a closed line of places on the canvas. */
  inside(line) {
    if (this.points === null || line.length < 3) return [];
    const corners = line.map(([x, y]) => this.at(x, y));
    const xs = corners.map(([x]) => x);
    const ys = corners.map(([, y]) => y);
    const { positions } = this.points;
    return this.tree
      .range(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys))
      .filter((row) => isInside(corners, positions[2 * row], positions[2 * row + 1]))
      .sort((one, other) => one - other);
  }

  // ---- hands ----

  /** Whether dragging draws a line around points instead of moving the map. */
  setLasso(on) {
    this.lassoing = on;
    if (this.line !== null) {
      this.line = this.down = null;
      this.callbacks.onLine(null);
    }
    this.deck.setProps({
      controller: on ? false : { keyboard: false, dragRotate: false, inertia: isStill() ? 0 : 250 },
    });
  }

  listen() {
    const options = { signal: this.listeners.signal };
    const place = (event) => {
      const box = this.frame.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    let waiting = null;
    // An event of the canvas goes no further up than it is caught on its way down.
    this.frame.addEventListener("webglcontextlost", () => this.callbacks.onLost(), { ...options, capture: true });
    this.frame.addEventListener(
      "pointerdown",
      (event) => {
        if (event.button !== 0) return;
        this.down = place(event);
        this.line = this.lassoing ? [this.down] : null;
        if (this.line) this.frame.setPointerCapture(event.pointerId);
        this.callbacks.onHover(null, 0, 0);
      },
      { ...options, capture: true },
    );
    this.frame.addEventListener(
      "pointermove",
      (event) => {
        const [x, y] = place(event);
        const { line } = this;
        if (line) {
          const [lastX, lastY] = line.at(-1);
          if (Math.hypot(x - lastX, y - lastY) > 3) line.push([x, y]);
          this.callbacks.onLine([...line]);
          return;
        }
        if (event.pointerType === "touch" || event.buttons !== 0) return;
        // One look a frame, however fast the pointer is.
        if (waiting === null) {
          requestAnimationFrame(() => {
            const [atX, atY] = waiting;
            waiting = null;
            const row = this.nearest(atX, atY);
            this.callbacks.onHover(row < 0 ? null : row, atX, atY);
          });
        }
        waiting = [x, y];
      },
      options,
    );
    this.frame.addEventListener(
      "pointerup",
      (event) => {
        const [x, y] = place(event);
        const { down, line } = this;
        this.down = this.line = null;
        if (line) {
          this.callbacks.onLine(null);
          if (line.length > 2) this.callbacks.onLasso(this.inside(line));
        } else if (down && Math.hypot(x - down[0], y - down[1]) < CLICK_PIXELS) {
          const row = this.nearest(x, y);
          this.callbacks.onPick(row < 0 ? null : row);
          // A finger does not hover: what it tapped is shown where it is.
          if (event.pointerType === "touch") this.callbacks.onHover(row < 0 ? null : row, x, y);
        }
      },
      options,
    );
    this.frame.addEventListener(
      "pointercancel",
      () => {
        this.down = this.line = null;
        this.callbacks.onLine(null);
      },
      options,
    );
    this.frame.addEventListener(
      "pointerleave",
      (event) => event.pointerType === "touch" || this.callbacks.onHover(null, 0, 0),
      options,
    );
  }
}

function isInside(corners, x, y) {
  let inside = false;
  for (let at = 0, before = corners.length - 1; at < corners.length; before = at, at += 1) {
    const [x1, y1] = corners[at];
    const [x2, y2] = corners[before];
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}
