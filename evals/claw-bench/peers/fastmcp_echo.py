"""FastMCP with one tool that answers what it was given: stateless, JSON answers."""

import sys

from fastmcp import FastMCP

server = FastMCP("echo")


@server.tool
def echo(text: str) -> dict:
    """Answers what it was given."""
    return {"text": text}


server.run(
    transport="http",
    host="127.0.0.1",
    port=int(sys.argv[1]),
    path="/mcp",
    stateless_http=True,
    json_response=True,
    log_level="error",
    show_banner=False,
)
