"""The messages and how they travel, under one name: for apps that speak with the strategies."""

from .federation.enrolment import *  # noqa: F403
from .federation.wire import *  # noqa: F403
from .messages import *  # noqa: F403
