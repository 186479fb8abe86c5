"""One organisation's running process, its store and its listeners.

`api/` the routes of people and programs, `accounts/` who they are and what they may, `security/` the log of it,
`work/` long work as jobs, `home/` the files that a gateway owns, their backup and the way back.
"""
