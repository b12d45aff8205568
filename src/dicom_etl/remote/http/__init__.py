"""One HTTP client: requests, whole answers, retries and the number of requests at once."""
