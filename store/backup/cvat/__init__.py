"""Backups that CVAT writes and imports: zips of tasks and of projects, version 1.0.

documents  `task.json`, `annotations.json`, `project.json`: judged, and made where there are none
layout     which members a zip has, as tasks
unzipping  zips that are hostile input
restoring  a zip → a version in a cache
writing    files of a version → a zip, as a stream
"""
