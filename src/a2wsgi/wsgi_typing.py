"""The types of WSGI, at the import path of a2wsgi 1.10.10. New code imports what it needs from ``a2wsgi``."""

from ._types import (
    CGIOptionalDefined,
    CGIRequiredDefined,
    Environ,
    ErrorStream,
    ExceptionInfo,
    InputStream,
    IterableChunks,
    StartResponse,
    WriteCallable,
    WSGIApp,
    WSGIDefined,
)

__all__ = [
    "CGIOptionalDefined",
    "CGIRequiredDefined",
    "Environ",
    "ErrorStream",
    "ExceptionInfo",
    "InputStream",
    "IterableChunks",
    "StartResponse",
    "WSGIApp",
    "WSGIDefined",
    "WriteCallable",
]
