"""What a build would do, as data: found out ahead, kept by builds, compared."""
