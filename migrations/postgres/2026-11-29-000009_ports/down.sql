DROP TABLE bridge_ports;
