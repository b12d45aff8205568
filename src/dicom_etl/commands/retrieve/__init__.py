"""The verb retrieve: what to ask the service for, and the folder that takes it."""
