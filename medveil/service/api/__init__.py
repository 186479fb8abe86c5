"""The API for people and programs: what every request passes first, the routes, and the shapes they take and give."""
