from indexrelay.rebuilder.coalescer import Timer


def test_a_timer_is_due_at_the_first_look_and_then_once_per_period() -> None:
    timer = Timer(5.0)
    assert timer.due(100.0)
    assert not timer.due(104.9)
    assert timer.due(105.0)
    assert not timer.due(105.0)


def test_a_timer_that_was_not_looked_at_for_long_is_due_once_not_often() -> None:
    timer = Timer(1.0)
    timer.due(0.0)
    assert timer.due(100.0)
    assert not timer.due(100.5)


def test_a_timer_that_expires_is_due_at_the_next_look() -> None:
    timer = Timer(5.0)
    timer.due(0.0)
    timer.expire()
    assert timer.due(1.0)
    assert not timer.due(5.9)
