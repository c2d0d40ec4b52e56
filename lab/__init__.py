"""The lab: a real Kubernetes cluster on one Linux machine that stands in for a bare-metal GPU cluster."""
