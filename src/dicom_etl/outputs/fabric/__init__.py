"""Shortcuts of Microsoft Fabric to the tables."""
