"""The world around the data: backups, servers, restore, runs."""
