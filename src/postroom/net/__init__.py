"""The network: streams, TLS and the drivers that join sockets to the machines of `postroom.protocol`."""
