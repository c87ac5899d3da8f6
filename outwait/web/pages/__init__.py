"""The pages for people: jobs, the dead and the held with their buttons, providers, charts. `install` adds them.

Rendered here from the client's and the store's own words: view models in Python, templates without decisions. They work
without JavaScript; the one script only keeps a page fresh and copies ids.
"""

from outwait.web.pages.routes import install

__all__ = ["install"]
