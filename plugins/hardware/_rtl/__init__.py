"""The Verilog of the engines: its cases, simulation and synthesis."""
