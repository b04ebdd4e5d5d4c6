// Requantises the sums of P processing elements and hands them out, P rows per beat: row r is value r mod P of beat
// r / P; what a last beat has beyond the last row is zero.
module output_stage #(
    parameter P = 4,
    parameter ROWS = 16,
    parameter SUM_BITS = 32,
    parameter OUT_BITS = 16,
    parameter LEFT = 0,
    parameter signed [7:0] SHIFT = 0,
    parameter PER_ROW = 0,
    parameter CONSTANTS = ""
) (
    input wire clk,
    input wire rst,
    input wire start,
    input wire half,
    input wire [P-1:0] sum_valid,
    input wire [P*SUM_BITS-1:0] sums,
    // Whether every row since the start is there.
    output wire finished,
    input wire drain,
    input wire drain_half,
    output wire drained,
    output wire y_valid,
    input wire y_ready,
    output wire [P*OUT_BITS-1:0] y_data,
    output wire y_last
);
  localparam BEATS = (ROWS + P - 1) / P;
  localparam ROW_BITS = BEATS > 1 ? $clog2(BEATS) : 1;
  localparam [ROW_BITS:0] ALL = BEATS;

  reg [ROW_BITS:0] left;
  wire [P-1:0] complete, valid;
  wire take = y_valid && y_ready;

  assign finished = &complete;
  assign y_valid = valid[0];
  assign y_last = left == 1;
  assign drained = take && y_last;

  always @(posedge clk)
    if (drain) left <= ALL;
    else if (take) left <= left - 1'b1;

  genvar pe;
  generate
    for (pe = 0; pe < P; pe = pe + 1) begin : pes
      localparam [7:0] THOUSANDS = 48 + pe / 1000 % 10;
      localparam [7:0] HUNDREDS = 48 + pe / 100 % 10;
      localparam [7:0] TENS = 48 + pe / 10 % 10;
      localparam [7:0] ONES = 48 + pe % 10;
      localparam [ROW_BITS:0] OWN = (ROWS + P - 1 - pe) / P;
      wire value_valid;
      wire [ROW_BITS-1:0] row;
      wire [OUT_BITS-1:0] value, word;
      wire [ROW_BITS:0] done;

      requantise #(
          .SUM_BITS(SUM_BITS),
          .OUT_BITS(OUT_BITS),
          .ROW_BITS(ROW_BITS),
          .ROWS(BEATS),
          .LEFT(LEFT),
          .SHIFT(SHIFT),
          .PER_ROW(PER_ROW),
          .CONSTANTS({CONSTANTS, THOUSANDS, HUNDREDS, TENS, ONES, ".hex"})
      ) scale (
          .clk(clk),
          .start(start || rst),
          .sum_valid(sum_valid[pe]),
          .sum(sums[pe*SUM_BITS+:SUM_BITS]),
          .value_valid(value_valid),
          .row(row),
          .value(value),
          .done(done)
      );

      stream #(
          .WIDTH(OUT_BITS),
          .DEPTH_BITS(ROW_BITS + 1)
      ) results (
          .clk(clk),
          .start(drain || rst),
          .first({drain_half, {ROW_BITS{1'b0}}}),
          .count({1'b0, rst ? {(ROW_BITS + 1) {1'b0}} : ALL}),
          .write(value_valid),
          .write_address({half, row}),
          .write_data(value),
          .take(take),
          .valid(valid[pe]),
          .word(word),
          .finished()
      );

      // Engines whose processing elements go in step read one row more from those that have one less.
      assign complete[pe] = done >= OWN;
      // A processing element without a row in the last beat has written nothing there.
      assign y_data[pe*OUT_BITS+:OUT_BITS] = OWN == ALL || !y_last ? word : {OUT_BITS{1'b0}};
    end
  endgenerate
endmodule
