"""A Dash dashboard inside a Starlette app.

uvicorn dash_in_starlette:app
"""

from dash import Dash, Input, Output, dcc, html
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route

from a2wsgi import WSGIMiddleware

dashboard = Dash(__name__, requests_pathname_prefix="/dash/")
dashboard.layout = [dcc.Input(id="name", value="Dash"), html.H1(id="greeting")]


@dashboard.callback(Output("greeting", "children"), Input("name", "value"))
def greet(name: str) -> str:
    """Called as the reader types."""
    return f"Hello from {name}"


app = Starlette(
    routes=[
        Route("/", lambda _: RedirectResponse("/dash/")),
        Mount("/dash", WSGIMiddleware(dashboard.server)),  # its Flask app
    ]
)
