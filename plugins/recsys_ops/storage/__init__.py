"""Objects in blob storage, their paths, and temporary folders."""
