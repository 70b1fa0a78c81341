"""Tools that the API defines and the client runs: a request names them, and the schemas stand here, in our words."""

from __future__ import annotations

from typing import Any

import msgspec

from pensieve.messages import Json

_TEXT: Json = {"type": "string"}
_PATH: Json = {"type": "string", "description": "Absolute path of a file or folder."}
_LINE: Json = {"type": "integer", "minimum": 0}
_POINT: Json = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0},
    "minItems": 2,
    "maxItems": 2,
    "description": "x and y in pixels, from the upper left corner.",
}
_RANGE: Json = {
    "type": "array",
    "items": {"type": "integer"},
    "minItems": 2,
    "maxItems": 2,
    "description": "First and last line to show, counted from 1; -1 is the end.",
}


class ClientTool(msgspec.Struct, frozen=True):
    """One family of tools: what its kinds begin with, its usual name, and what the model is told."""

    prefix: str
    name: str
    description: str
    parameters: dict[str, Json]


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Json]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_BASH = _object(
    (),
    command={"type": "string", "description": "What the shell is to run."},
    restart={"type": "boolean", "description": "Start the shell anew, without a command."},
)
_EDITOR = _object(
    ("command", "path"),
    command={"type": "string", "enum": ["view", "create", "str_replace", "insert"]},
    path=_PATH,
    view_range=_RANGE,
    file_text=_TEXT | {"description": "For create: the whole text of the file."},
    old_str=_TEXT | {"description": "For str_replace: text that stands in the file exactly once."},
    new_str=_TEXT | {"description": "For str_replace: what stands there afterwards."},
    insert_line=_LINE | {"description": "For insert: the line after which the text goes; 0 is the beginning."},
    insert_text=_TEXT | {"description": "For insert: the text."},
)
_MEMORY = _object(
    ("command",),
    command={"type": "string", "enum": ["view", "create", "str_replace", "insert", "delete", "rename"]},
    path={"type": "string", "description": "A place below /memories."},
    view_range=_RANGE,
    file_text=_TEXT | {"description": "For create: the whole text of the file."},
    old_str=_TEXT | {"description": "For str_replace: text that stands in the file exactly once."},
    new_str=_TEXT | {"description": "For str_replace: what stands there afterwards."},
    insert_line=_LINE | {"description": "For insert: the line after which the text goes."},
    insert_text=_TEXT | {"description": "For insert: the text."},
    old_path=_TEXT | {"description": "For rename: where it is."},
    new_path=_TEXT | {"description": "For rename: where it goes."},
)
_CLICKS = ("left_click", "right_click", "middle_click", "double_click", "triple_click")
_ACTIONS = (
    *("screenshot", "cursor_position", "mouse_move", *_CLICKS, "left_click_drag", "left_mouse_down", "left_mouse_up"),
    *("scroll", "type", "key", "hold_key", "wait", "zoom"),
)
_COMPUTER = _object(
    ("action",),
    action={"type": "string", "enum": list(_ACTIONS)},
    coordinate=_POINT,
    start_coordinate=_POINT,
    text=_TEXT | {"description": "What to type, or the keys to press, such as ctrl+s."},
    scroll_direction={"type": "string", "enum": ["up", "down", "left", "right"]},
    scroll_amount={"type": "integer", "minimum": 0},
    duration={"type": "number", "minimum": 0, "description": "Seconds to wait, or to hold a key."},
    region={
        "type": "array",
        "items": {"type": "integer"},
        "minItems": 4,
        "maxItems": 4,
        "description": "For zoom: left, top, right and bottom.",
    },
)

CLIENT_TOOLS = (
    ClientTool("bash_", "bash", "Runs commands in a shell that stays open, and gives what they print.", _BASH),
    ClientTool("text_editor_", "str_replace_based_edit_tool", "Shows, creates and changes text files.", _EDITOR),
    ClientTool("memory_", "memory", "Keeps notes as files that outlive this conversation.", _MEMORY),
    ClientTool("computer_2", "computer", "Sees a screen, and works its mouse and keyboard.", _COMPUTER),
)


def find_client_tool(kind: str) -> ClientTool | None:
    """The family that a `type` of a request's tool belongs to."""
    return next((tool for tool in CLIENT_TOOLS if kind.startswith(tool.prefix)), None)


def told(tool: ClientTool, options: dict[str, Json]) -> str:
    """The description, with the options of a request that the model should know."""
    width, height = options.get("display_width_px"), options.get("display_height_px")
    size = f" The screen has {width} x {height} pixels." if isinstance(width, int) and isinstance(height, int) else ""
    return tool.description + size
