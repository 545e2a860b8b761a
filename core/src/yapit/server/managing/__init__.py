"""What manages models over HTTP: what there is, what is fetched, loaded and removed."""
