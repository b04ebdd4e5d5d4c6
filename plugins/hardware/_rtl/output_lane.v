// One processing element's way out: its sums are requantised row by row and wait in a memory of two halves.
// `complete` says whether ROWS rows have come since the start; results leave as BEATS words, the last of which is zero
// where it has no row.
module output_lane #(
    parameter ROWS = 64,
    parameter BEATS = ROWS,
    parameter ROW_BITS = 6,
    parameter SUM_BITS = 32,
    parameter OUT_BITS = 16,
    parameter LEFT = 0,
    parameter signed [7:0] SHIFT = 0,
    parameter PER_ROW = 1,
    parameter CONSTANTS = "mem/constants_",
    parameter integer NUMBER = 0
) (
    input wire clk,
    input wire rst,
    input wire start,
    input wire half,
    input wire sum_valid,
    input wire signed [SUM_BITS-1:0] sum,
    output wire complete,
    input wire drain,
    input wire drain_half,
    input wire take,
    input wire last,
    output wire valid,
    output wire [OUT_BITS-1:0] result
);
  wire value_valid, unused_finished;
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
      .CONSTANTS(CONSTANTS),
      .NUMBER(NUMBER)
  ) scale (
      .clk(clk),
      .start(start || rst),
      .sum_valid(sum_valid),
      .sum(sum),
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
      .count({1'b0, rst ? {(ROW_BITS + 1) {1'b0}} : BEATS[ROW_BITS:0]}),
      .write(value_valid),
      .write_address({half, row}),
      .write_data(value),
      .take(take),
      .valid(valid),
      .word(word),
      .finished(unused_finished)
  );

  // Engines whose processing elements go in step read one row more from those that have one less.
  generate
    if (ROWS == 0) begin : idle
      assign complete = 1'b1;
      wire unused = &done;
    end else begin : working
      assign complete = done >= ROWS[ROW_BITS:0];
    end
  endgenerate
  assign result = ROWS == BEATS || !last ? word : {OUT_BITS{1'b0}};
endmodule
