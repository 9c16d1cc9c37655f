"""Git repositories, read through the git command line."""
