"""How the service is reached: the app, its middleware, bodies, answers and errors."""
