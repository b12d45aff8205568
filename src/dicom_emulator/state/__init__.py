"""What the service holds: instances, their versions, its feed and its clock."""
