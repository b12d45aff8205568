"""`doctor`: each check of settings, service, storage and machine by itself."""
