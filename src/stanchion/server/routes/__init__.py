"""The routes, by what they are about. A route reads its request, calls the runtime once and says what came of it."""
