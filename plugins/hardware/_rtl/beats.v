// Counts the beats in which results leave: BEATS after every drain; `last` marks the last of them.
module beats #(
    parameter BEATS = 4
) (
    input wire clk,
    input wire drain,
    input wire take,
    output wire last
);
  localparam COUNT_BITS = $clog2(BEATS + 1);
  reg [COUNT_BITS-1:0] left;

  assign last = left == 1;

  always @(posedge clk)
    if (drain) left <= BEATS[COUNT_BITS-1:0];
    else if (take) left <= left - 1'b1;
endmodule
