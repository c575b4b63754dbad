"""A client that others wrote: the Python `mcp` package, mode auto.

Usage: client.py http URL KEY | client.py stdio PROGRAM ARGUMENT...
Prints what it saw as one line of JSON.
"""

import asyncio
import json
import sys
import warnings

from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

warnings.simplefilter("always")


async def look(client):
    """Lists the tools and makes one call of each kind."""
    tools = await client.list_tools()
    status = await client.call_tool("cluster_status", {})
    refused = await client.call_tool("workload_get", {"workload": "nobody"})
    spec = {"command": ["sh", "-c", "exit 0"], "name": "from-python", "runtime": "process"}
    planned = await client.call_tool("workload_run", {"spec": spec, "mode": "plan"})
    inner = await client.call_tool("tool_call", {"name": "approval_list", "args": {}})
    results = {"status": status, "refused": refused, "planned": planned, "inner": inner}
    return {
        "protocol": client.protocol_version,
        "server": client.server_info.name,
        "tools": [tool.name for tool in tools.tools],
        "results": {
            name: {
                "is_error": result.is_error,
                "structured": result.structured_content,
                "text_is_the_same": json.loads(result.content[0].text) == result.structured_content,
            }
            for name, result in results.items()
        },
    }


async def over_http(url, key):
    async with create_mcp_http_client(headers={"Authorization": f"Bearer {key}"}) as http:
        async with Client(streamable_http_client(url, http_client=http), mode="auto") as client:
            return await look(client)


async def over_stdio(program, arguments):
    server = StdioServerParameters(command=program, args=arguments)
    async with Client(server, mode="auto") as client:
        return await look(client)


if sys.argv[1] == "http":
    seen = asyncio.run(over_http(sys.argv[2], sys.argv[3]))
else:
    seen = asyncio.run(over_stdio(sys.argv[2], sys.argv[3:]))
print(json.dumps(seen))
