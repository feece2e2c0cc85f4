"""A real S3 server on loopback, moto's, for the real s3fs: `AWS_ENDPOINT_URL=server.url`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import requests
from moto.server import ThreadedMotoServer

KEY, SECRET = "AKIAKUNBUILDERTEST01", "kun/very+secret/of/the/tests/0123456789"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # no look for credentials in the network
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


@dataclass(frozen=True)
class S3Server:
    """Buckets of a test."""

    url: str
    client: Any

    def put(self, bucket: str, files: Mapping[str, bytes]) -> str:
        """Make a bucket (if there is none) with these objects; returns its address."""
        self.client.create_bucket(Bucket=bucket)
        for key, content in files.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}"

    def check_keys(self, on: bool) -> None:
        """Whether keys that the server does not know are refused from now on: by itself, moto takes any."""
        requests.post(f"{self.url}/moto-api/reset-auth", data="0" if on else "inf", timeout=10)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run the server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    try:
        yield S3Server(url, boto3.client("s3", endpoint_url=url, **keys))
    finally:
        server.stop()
