"""The model that the path of a request names, for APIs and providers whose bodies do not.

Facts:
- Google: `…/models/MODEL:METHOD`, and `…/endpoints/NUMBER:METHOD` for a tuned one. Bedrock: `/model/MODEL/OPERATION`, where MODEL may
  be an ARN whose slashes are percent-encoded and whose colons may be. Azure: `…/deployments/NAME/…`; older engines `/engines/NAME/…`.
"""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

import msgspec

from aiproxyd.model.head import RequestHead
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.requests import MAX_HINT_CHARACTERS

_MODEL: Final = re.compile(r"/(?:models|tunedModels|endpoints)/([^/:]+):[^/]+\Z|/(?:model|deployments|engines)/([^/]+)/")


def model_of(path: str) -> str:
    """Return the model that `path` names, percent-decoded; empty when it names none."""
    found = _MODEL.search(path)
    return unquote(found[1] or found[2])[:MAX_HINT_CHARACTERS] if found is not None else ""


def naming_the_model(
    read_request: Callable[[bytes, RequestHead], RequestFacts],
) -> Callable[[bytes, RequestHead], RequestFacts]:
    """Return `read_request` with the path's model where the body names none."""

    def read(body: bytes, head: RequestHead) -> RequestFacts:
        facts = read_request(body, head)
        if facts.request_model:
            return facts
        model = model_of(head.path)
        return msgspec.structs.replace(facts, request_model=model) if model else facts

    return read
