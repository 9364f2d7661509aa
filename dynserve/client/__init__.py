"""The other half of the wire: stubs made from a schema, for any server, sync and asyncio.

``dynserve.connect`` and ``dynserve.aio.connect`` are the ways in. What the two worlds share is
written once: how a channel is made (``channel``), where the schema comes from (``source``,
``reflected``), what a method encodes and decodes (``codec``) and how a stub looks (``stub``).
"""
