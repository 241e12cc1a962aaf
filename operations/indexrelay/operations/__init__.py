"""Running it unattended: schedules, backups, metrics, alerts, notifications and service units.

Nothing here builds, releases or serves. A schedule asks for a rebuild by a row of the inbox, as
people do; an alert is a rule over what the one judge and the results say; a backup is a release
with its blobs. It needs the extra ``operations``.
"""
