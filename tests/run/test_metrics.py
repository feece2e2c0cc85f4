"""The figures that Prometheus scrapes."""

from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from kun_builder.errors import RunError
from kun_builder.run.metrics import serve_metrics
from kun_builder.status import Status


def test_metrics_are_served_while_a_run_lasts():
    """Figures of the moment are there in Prometheus' text format, names of reasons escaped, and nothing else is."""
    status = Status(requests=3, in_flight=2, prompt_tokens=50)
    status.begin("label > score", 10)
    status.drops['refine: too "short"'] = 4
    with serve_metrics(status, 0) as port:
        status.done = 7
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        with pytest.raises(HTTPError, match="404") as missing:
            urlopen(f"http://127.0.0.1:{port}/")
        missing.value.close()
    assert 'kun_rows_done{phase="label > score"} 7\n' in text
    assert "kun_requests_total 3\n" in text
    assert "kun_requests_in_flight 2\n" in text
    assert r'kun_rows_rejected_total{stage="refine",reason="too \"short\""} 4' in text


def test_a_taken_port_is_an_error_of_the_user():
    """Two runs cannot have the same port: the second is told so."""
    with (
        serve_metrics(Status(), 0) as port,
        pytest.raises(RunError, match=f"port {port} cannot be used"),
        serve_metrics(Status(), port),
    ):
        pass
