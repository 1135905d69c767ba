"""What a training process inherits, in what its base model is loaded, and how long processes took."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from intern.learning.train.base import weights_in
from intern.learning.train.job import Event
from intern.learning.train.process import AUTOGROUP, BEHIND, ENVIRONMENT, Clock, inherited, step_back


@pytest.mark.parametrize(
    ("given", "visible"),
    [
        ({}, "0"),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "3"),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, "2"),
        ({"CUDA_VISIBLE_DEVICES": ""}, ""),  # none at all
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937,GPU-1a2b"}, "GPU-8932f937"),
    ],
)
def test_a_training_sees_one_gpu(given: dict[str, str], visible: str) -> None:
    found = inherited({"HOME": "/root", **given})
    assert found == {"HOME": "/root", **ENVIRONMENT, "CUDA_VISIBLE_DEVICES": visible}


def test_whoever_waits_for_an_answer_goes_before_a_training() -> None:
    tells = f"import os; print(os.nice(0)); print(open('{AUTOGROUP}').read() if os.path.exists('{AUTOGROUP}') else '')"
    command = [sys.executable, "-c", tells]
    told = subprocess.run(command, preexec_fn=step_back, start_new_session=True, capture_output=True, text=True)
    own, session = told.stdout.splitlines()[:2]
    assert int(own) == min(os.nice(0) + BEHIND, 19)
    assert session.endswith(f" nice {BEHIND}") == AUTOGROUP.exists()


def test_a_training_knows_none_of_the_servers_settings_and_secrets() -> None:
    needed = {"PATH": "/bin", "HOME": "/root", "HF_HOME": "/models", "LD_LIBRARY_PATH": "/cuda", "OMP_NUM_THREADS": "2"}
    needed |= {"HTTPS_PROXY": "http://proxy:3128", "PWD": "/srv", "KEYBOARD": "us"}
    secrets = (
        "INTERN_API_KEY",
        "INTERN_TEACHER_KEY",
        "INTERN_ENGINE_URL",
        "INTERN_DATABASE_URL",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "OPENAI_API_KEY",
        "PGPASSWORD",
        "DATABASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "slack_client_secret",
        "MYSQL_PWD",
        "SMTP_PASS",
        "PGPASSFILE",
        "REDIS_URL",
        "SENTRY_DSN",
        "AWS_ACCESS_KEY_ID",
    )
    found = inherited(needed | dict.fromkeys(secrets, "of nobody's business"))
    assert found == {**needed, **ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "0"}


def test_a_training_tells_no_hub_about_itself() -> None:
    asks = "from huggingface_hub import constants as c; print(c.is_offline_mode(), c.HF_HUB_DISABLE_TELEMETRY)"
    environment = inherited({**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "0"})
    said = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "True"]


@pytest.mark.parametrize(
    ("device", "precision", "dtype"),
    [
        ("cuda", "auto", torch.bfloat16),
        ("cuda", "bfloat16", torch.bfloat16),
        ("cuda", "float32", torch.float32),
        ("cpu", "auto", torch.float32),
        ("cpu", "bfloat16", torch.float32),
        ("mps", "auto", torch.float32),
    ],
)
def test_weights_are_in_float32_where_that_is_asked_for(device: str, precision: Any, dtype: torch.dtype) -> None:
    assert weights_in(torch.device(device), precision) == dtype


def test_the_seconds_of_processes_add_up() -> None:
    clock = Clock(100.0)
    for seconds in (0.1, 30.0, None, 0.1, 12.0):
        clock.see(Event(kind="step", seconds=seconds))
    assert (clock.before, clock.total) == (130.0, 142.0)
