"""Tests the maximum number of queries of a page, which the emulator cannot reach."""

from typing import Any

from lambdas.adapters import dynamodb_json
from lambdas.adapters.jobs import QUERIES_MAX, JobsTable
from maskdrop.services import Selection


class Endless:
    """A table without end, in which no job matches the filter. Each query returns a page of 1 MB."""

    queries = 0

    def query(self, **query: Any) -> dict[str, Any]:
        start = dynamodb_json.read(query.get("ExclusiveStartKey", {"recency": {"S": "0"}}))
        assert start["recency"] == f"{self.queries}"
        self.queries += 1
        return {"Items": [], "LastEvaluatedKey": dynamodb_json.write({"recency": f"{self.queries}"})}


def test_a_page_stops_after_the_maximum_number_of_queries_and_the_next_continues_there() -> None:
    table = Endless()
    jobs = JobsTable(table, "jobs", keep_days=1)  # type: ignore[arg-type]
    page = jobs.page(Selection(owner="shop", prefix="nothing/"), before="", limit=10)
    assert table.queries == QUERIES_MAX
    assert (page.jobs, page.before) == ([], str(QUERIES_MAX))
