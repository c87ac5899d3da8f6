"""The pages for people: overview, jobs, held jobs, dead deliveries, providers. `install` adds them to an application.

View models are made in Python, so that the templates make no decisions. The pages work without JavaScript; their one
script only updates a page, copies ids and selects all rows.
"""

from outwait.web.pages.routes import install

__all__ = ["install"]
