// The way out of an engine: LANES sums side by side are requantised row by row, wait, and leave in BEATS beats of LANES
// values, row r being value r mod LANES of beat r / LANES; what the last beat has beyond the last row is zero.
// Where PER_ROW is set, lane l has the constants of the file CONSTANTS followed by four digits of l and `.hex`.
module outputs #(
    parameter LANES = 4,
    parameter ROWS = 16,
    parameter BEATS = (ROWS + LANES - 1) / LANES,
    parameter SUM_BITS = 32,
    parameter OUT_BITS = 16,
    parameter LEFT = 0,
    parameter signed [7:0] SHIFT = 0,
    parameter PER_ROW = 0,
    parameter CONSTANTS = ""
) (
    input wire clk,
    input wire rst,
    // Before the first sum of a product; its results go to `half`.
    input wire start,
    input wire half,
    input wire [LANES-1:0] sum_valid,
    input wire [LANES*SUM_BITS-1:0] sums,
    // All results of this product are there.
    output wire complete,
    input wire drain,
    input wire drain_half,
    input wire take,
    output wire valid,
    output wire last,
    output wire [LANES*OUT_BITS-1:0] results
);
  localparam ROW_BITS = BEATS > 1 ? $clog2(BEATS) : 1;
  wire [LANES-1:0] each_complete, each_valid;

  // Lanes go in step: what the first one has, all have.
  assign valid = each_valid[0];
  assign complete = &each_complete;
  wire unused = &each_valid;

  beats #(
      .BEATS(BEATS)
  ) counter (
      .clk(clk),
      .drain(drain),
      .take(take),
      .last(last)
  );

  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : lanes
      output_lane #(
          .ROWS((ROWS + LANES - 1 - lane) / LANES),
          .BEATS(BEATS),
          .ROW_BITS(ROW_BITS),
          .SUM_BITS(SUM_BITS),
          .OUT_BITS(OUT_BITS),
          .LEFT(LEFT),
          .SHIFT(SHIFT),
          .PER_ROW(PER_ROW),
          .CONSTANTS(CONSTANTS),
          .NUMBER(lane)
      ) out (
          .clk(clk),
          .rst(rst),
          .start(start),
          .half(half),
          .sum_valid(sum_valid[lane]),
          .sum(sums[lane*SUM_BITS+:SUM_BITS]),
          .complete(each_complete[lane]),
          .drain(drain),
          .drain_half(drain_half),
          .take(take),
          .last(last),
          .valid(each_valid[lane]),
          .result(results[lane*OUT_BITS+:OUT_BITS])
      );
    end
  endgenerate
endmodule
