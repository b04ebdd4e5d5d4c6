// A whole matrix-vector product on the column-FIFO engine: vectors in, results of the next layer's numbers out.
//
// x: ceil(COLS / G) beats of G elements, element g of beat b being column b * G + g, zero behind the last. y:
// ceil(ROWS / P) beats of P values, row r being value r mod P of beat r / P; what the last beat has beyond the last row
// is zero. After a reset the sums are set to zero, which takes about as many cycles as a processing element has rows.
module column_accelerator #(
    parameter G = 1,
    parameter P = 8,
    parameter ROWS = 16,
    parameter COLS = 16,
    parameter WEIGHT_BITS = 16,
    parameter VECTOR_BITS = 16,
    parameter SUM_BITS = 32,
    parameter OUT_BITS = 16,
    parameter DEPTH_BITS = 9,
    parameter WORDS = 1 << DEPTH_BITS,
    parameter FIFO_DEPTH = 8,
    parameter FULL_FLAG = 0,
    parameter LEFT = 0,
    parameter signed [7:0] SHIFT = 0,
    parameter PER_ROW = 0,
    // Words of every processing element, DEPTH_BITS + 1 bits each, the first in the lowest bits.
    parameter [G*P*(DEPTH_BITS+1)-1:0] COUNTS = 0,
    parameter WEIGHTS = "mem/weights_",
    parameter CONSTANTS = "mem/constants_",
    parameter WEIGHT_STYLE = "auto",
    parameter WEIGHT_STYLE_INTEL = "",
    parameter VECTOR_STYLE = "auto",
    parameter VECTOR_STYLE_INTEL = "",
    parameter SUM_STYLE = "auto",
    parameter SUM_STYLE_INTEL = ""
) (
    input wire clk,
    input wire rst,
    input wire x_valid,
    output wire x_ready,
    input wire [G*VECTOR_BITS-1:0] x_data,
    output wire busy,
    output wire done,
    output wire [31:0] cycles,
    output wire y_valid,
    input wire y_ready,
    output wire [P*OUT_BITS-1:0] y_data,
    output wire y_last
);
  localparam X_BEATS = (COLS + G - 1) / G;
  localparam BEATS = (ROWS + P - 1) / P;
  localparam COLUMN_BITS = X_BEATS > 1 ? $clog2(X_BEATS) : 1;
  localparam ROW_BITS = BEATS > 1 ? $clog2(BEATS) : 1;
  localparam FIFO_BITS = FIFO_DEPTH > 1 ? $clog2(FIFO_DEPTH) : 1;

  wire start, write, write_half, read_half, result_half, drain, drain_half;
  wire finished;
  wire take = y_valid && y_ready;
  wire drained = take && y_last;

  wire [COLUMN_BITS-1:0] beat;
  wire unused_outer, unused_summed;
  wire result_valid;
  wire [P*SUM_BITS-1:0] results;
  wire [G*(COLUMN_BITS+1)-1:0] columns;

  // A reset is a product with nothing to do: what was on its way leaves the pipeline, and reading the sums out sets them
  // to zero. These readings are no results.
  reg [3:0] resetting;
  reg cleared;
  reg [ROW_BITS:0] uncleared;
  wire idle = rst || resetting != 0;
  always @(posedge clk) begin
    resetting <= rst ? 4'b1111 : resetting >> 1;
    if (idle) begin
      cleared <= 0;
      uncleared <= BEATS[ROW_BITS:0];
    end else if (!cleared && result_valid) begin
      cleared <= uncleared == 1;
      uncleared <= uncleared - 1'b1;
    end
  end

  genvar group;
  generate
    for (group = 0; group < G; group = group + 1) begin : lengths
      localparam LENGTH = (COLS + G - 1 - group) / G;
      assign columns[group*(COLUMN_BITS+1)+:COLUMN_BITS+1] = idle ? {(COLUMN_BITS + 1) {1'b0}} : LENGTH[COLUMN_BITS:0];
    end
  endgenerate

  sequencer #(
      .BEATS(X_BEATS),
      .INNER_BITS(COLUMN_BITS)
  ) control (
      .clk(clk),
      .rst(rst),
      .ready(cleared && !rst),
      .x_valid(x_valid),
      .x_ready(x_ready),
      .write(write),
      .write_half(write_half),
      .inner(beat),
      .outer(unused_outer),
      .start(start),
      .read_half(read_half),
      .result_half(result_half),
      .finished(finished),
      .drain(drain),
      .drain_half(drain_half),
      .drained(drained),
      .busy(busy),
      .done(done),
      .cycles(cycles)
  );

  column_engine #(
      .G(G),
      .P(P),
      .WIDTH(WEIGHT_BITS),
      .VECTOR_BITS(VECTOR_BITS),
      .ROW_BITS(ROW_BITS),
      .SUM_BITS(SUM_BITS),
      .DEPTH_BITS(DEPTH_BITS),
      .COLUMN_BITS(COLUMN_BITS),
      .FIFO_BITS(FIFO_BITS),
      .WORDS(WORDS),
      .PRELOADED(1),
      .WEIGHTS(WEIGHTS),
      .WEIGHT_STYLE(WEIGHT_STYLE),
      .WEIGHT_STYLE_INTEL(WEIGHT_STYLE_INTEL),
      .VECTOR_STYLE(VECTOR_STYLE),
      .VECTOR_STYLE_INTEL(VECTOR_STYLE_INTEL),
      .SUM_STYLE(SUM_STYLE),
      .SUM_STYLE_INTEL(SUM_STYLE_INTEL)
  ) engine (
      .clk(clk),
      .clear(1'b0),
      .start(start || idle),
      .columns(columns),
      .counts(idle ? {(G * P * (DEPTH_BITS + 1)) {1'b0}} : COUNTS),
      .rows_per_pe(BEATS[ROW_BITS:0]),
      .fifo_depth(FIFO_DEPTH[FIFO_BITS:0]),
      .full_flag(FULL_FLAG[1:0]),
      .weight_write({(G * P) {1'b0}}),
      .weight_address({DEPTH_BITS{1'b0}}),
      .weight_data({(1 + ROW_BITS + WEIGHT_BITS) {1'b0}}),
      .half(read_half),
      .vector_write({G{write}}),
      .vector_address({write_half, beat}),
      .vector_data(x_data),
      .summed(unused_summed),
      .result_valid(result_valid),
      .results(results)
  );

  outputs #(
      .LANES(P),
      .ROWS(ROWS),
      .SUM_BITS(SUM_BITS),
      .OUT_BITS(OUT_BITS),
      .LEFT(LEFT),
      .SHIFT(SHIFT),
      .PER_ROW(PER_ROW),
      .CONSTANTS(CONSTANTS)
  ) out (
      .clk(clk),
      .rst(rst),
      .start(start),
      .half(result_half),
      .sum_valid({P{result_valid && cleared}}),
      .sums(results),
      .complete(finished),
      .drain(drain),
      .drain_half(drain_half),
      .take(take),
      .valid(y_valid),
      .last(y_last),
      .results(y_data)
  );
endmodule
