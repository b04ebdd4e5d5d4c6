// A RAM with one write port and one registered read port: what FPGA block RAM is.
// A word read in the same cycle in which it is written is the old one; no user relies on that.
module ram #(
    parameter WIDTH = 16,
    parameter DEPTH_BITS = 8
) (
    input wire clk,
    input wire write,
    input wire [DEPTH_BITS-1:0] write_address,
    input wire [WIDTH-1:0] write_data,
    input wire read,
    input wire [DEPTH_BITS-1:0] read_address,
    output reg [WIDTH-1:0] read_data
);
  reg [WIDTH-1:0] words[0:(1<<DEPTH_BITS)-1];

  always @(posedge clk) begin
    if (write) words[write_address] <= write_data;
    if (read) read_data <= words[read_address];
  end
endmodule
