"""The components of the OpenAPI document: a schema for each model, enumeration and named type."""

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from transferd.web.schemas import Page

_ADDRESS = "#/components/schemas/{model}"
Model = TypeVar("Model", bound=BaseModel)


class _Generator(GenerateJsonSchema):
    """Without titles, which repeat names, and without defaults of null, which clients would send
    where their user has left a field out.
    """

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema of a field that may be left out."""
        if schema.get("default", 0) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: object) -> bool:
        """No title."""
        return False


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """A reference to the schema of a model."""
    return {"$ref": _ADDRESS.format(model=model.__name__)}


@cache
def list_of(model: type[BaseModel]) -> type[BaseModel]:
    """The model of a page of a list."""
    members: dict[str, Any] = {"data": (list[model], ...)}  # type: ignore[valid-type]
    name = f"{model.__name__}List"
    return create_model(
        name, __base__=Page, __doc__=f"A page of a list of {model.__name__}.", **members
    )


def components_of(models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """The schemas of these models and of all that they consist of, by name."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)],
        ref_template=_ADDRESS,
        schema_generator=_Generator,
    )
    schemas: dict[str, Any] = definitions["$defs"]
    for schema in schemas.values():
        schema.pop("title", None)
    return schemas


def members_of(model: type[BaseModel]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of each member of a model, and the components that they refer to."""
    schema = model.model_json_schema(ref_template=_ADDRESS, schema_generator=_Generator)
    return schema.get("properties", {}), schema.get("$defs", {})
