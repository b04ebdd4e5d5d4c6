// A table of 2**PLACE_BITS entries, looked up at a signed place in a cycle.
module lookup #(
    parameter BITS = 16,
    parameter PLACE_BITS = 12,
    parameter INIT = ""
) (
    input wire clk,
    input wire [PLACE_BITS-1:0] place,
    output wire signed [BITS-1:0] value
);
  wire [BITS-1:0] word;
  assign value = word;
  ram #(
      .WIDTH(BITS),
      .DEPTH_BITS(PLACE_BITS),
      .PRELOADED(1),
      .INIT(INIT)
  ) entries (
      .clk(clk),
      .write(1'b0),
      .write_address({PLACE_BITS{1'b0}}),
      .write_data({BITS{1'b0}}),
      .read(1'b1),
      // Entry 0 is the one of the lowest place.
      .read_address({!place[PLACE_BITS-1], place[PLACE_BITS-2:0]}),
      .read_data(word)
  );
endmodule
