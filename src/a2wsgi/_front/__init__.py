"""What makes bridges: the only files that know both wings.

====================  ==================================================================================================
``wsgi_middleware``   `WSGIMiddleware`
``asgi_middleware``   `ASGIMiddleware`
``convert``           `to_asgi` and `to_wsgi`, which put a bridge around an app only if it needs one
``chain``             an app under middleware of either kind
====================  ==================================================================================================

Most programs go in one direction, so each class is imported by itself, and brings its own wing with it.
"""
