"""Namespaces as JSON."""

from collections.abc import Iterable
from dataclasses import asdict

from pydantic import BaseModel, Field

from ...values.namespace import Namespace
from ..requests.retention import RetentionRules


class NamespaceView(BaseModel):
    """The contents of a namespace in numbers, and its limits; a quota of null is no limit."""

    namespace: str = Field(examples=["vision"])
    quota_bytes: int | None = Field(description="most `stored_bytes`", examples=[500_000_000_000])
    quota_checkpoints: int | None = Field(description="most `checkpoints`", examples=[None])
    models: int = Field(examples=[3])
    checkpoints: int = Field(examples=[120])
    logical_bytes: int = Field(description="the sizes of all checkpoints together", examples=[23_000_000_000])
    stored_bytes: int = Field(
        description="the bytes in the store, each blob once; the trash and what waits for a sweep included",
        examples=[9_000_000_000],
    )
    retention: RetentionRules | None = Field(description="the rules of models without their own")

    @classmethod
    def of(cls, namespace: Namespace) -> "NamespaceView":
        fields = asdict(namespace) | {"retention": RetentionRules.of(namespace.retention)}
        return cls(namespace=fields.pop("name"), **fields)


class NamespacePage(BaseModel):
    items: list[NamespaceView]
    next: str | None = Field(description="the cursor of the next page")

    @classmethod
    def of(cls, namespaces: Iterable[Namespace], cursor: str | None) -> "NamespacePage":
        return cls(items=list(map(NamespaceView.of, namespaces)), next=cursor)
