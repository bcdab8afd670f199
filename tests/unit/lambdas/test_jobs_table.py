"""What of the table of jobs no emulator shows: reading that has to stop."""

from typing import Any

from lambdas.adapters import dynamodb_json
from lambdas.adapters.jobs import QUERIES_MAX, JobsTable
from maskdrop.services import Selection


class Endless:
    """A table with ever more jobs, none of which passes the filter; a read ends after a megabyte of them."""

    reads = 0

    def query(self, **query: Any) -> dict[str, Any]:
        asked = dynamodb_json.read(query.get("ExclusiveStartKey", {"recency": {"S": "0"}}))
        assert asked["recency"] == f"{self.reads}"
        self.reads += 1
        return {"Items": [], "LastEvaluatedKey": dynamodb_json.write({"recency": f"{self.reads}"})}


def test_a_page_of_a_rare_prefix_ends_where_its_reading_ended_and_the_next_goes_on_there() -> None:
    table = Endless()
    jobs = JobsTable(table, "jobs", keep_days=1)  # type: ignore[arg-type]
    page = jobs.page(Selection(owner="shop", prefix="nothing/"), before="", limit=10)
    assert table.reads == QUERIES_MAX
    assert (page.jobs, page.before) == ([], str(QUERIES_MAX))
