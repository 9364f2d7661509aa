"""What carries calls: plain ``grpc.GenericRpcHandler`` in, nothing of dynserve."""
