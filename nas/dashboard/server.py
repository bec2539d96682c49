"""MLflow's server with a page that opens the searches, at ``/nas``: an app of MLflow's, for ``mlflow server``.

MLflow's own first page is about language models, and its panel of an assistant opens by itself and takes a quarter
of the window. The browser remembers otherwise, once this page has told it so.
"""

from __future__ import annotations

import json

from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from mlflow.server.fastapi_app import app

from nas.dashboard.store import OURS, VIEW, VIEW_TAG

PAGE = "/nas"
REMEMBERED = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.workflowType_v1": '"machine_learning"',
}
WANTED = {"max_results": 1, "filter": f"tags.`{OURS}` = 'true'", "order_by": ["last_update_time DESC"]}
SCRIPT = f"""
for (const [name, value] of Object.entries({json.dumps(REMEMBERED)}))
    if (localStorage.getItem(name) === null) localStorage.setItem(name, value);
fetch("ajax-api/2.0/mlflow/experiments/search", {{
    method: "POST", headers: {{"Content-Type": "application/json"}}, body: {json.dumps(json.dumps(WANTED))}
}}).then(answer => answer.json()).then(({{experiments}}) => {{
    const [{{experiment_id, tags}}] = experiments;
    const shared = tags.some(({{key}}) => key === {json.dumps(next(iter(VIEW_TAG)))});
    location.replace(`./#/experiments/${{experiment_id}}/runs?workflowType=machine_learning`
        + (shared ? "&viewStateShareKey={VIEW}" : ""));
}}).catch(() => location.replace("./"));
"""


def first_page() -> HTMLResponse:
    """A page that goes on to the latest searches."""
    text = f'<!doctype html><meta charset="utf-8"><title>nas</title><script>{SCRIPT}</script>'
    return HTMLResponse(text + "<noscript>This page needs JavaScript.</noscript>")


app.router.routes.insert(0, APIRoute(PAGE, first_page))  # before MLflow's own, which take every address
