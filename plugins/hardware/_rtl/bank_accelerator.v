// A whole matrix-vector product on the bank engine: vectors in, results of the next layer's numbers out.
//
// x: WAVES * LONGEST beats of N elements; element n of beat w * LONGEST + i is element i of bank w * N + n, zero where a
// bank has none. y: ceil(ROWS / M) beats of M values, row r being value r mod M of
// beat r / M; what the last beat has beyond the last row is zero.
module bank_accelerator #(
    parameter M = 4,
    parameter N = 16,
    parameter ROWS = 16,
    parameter WAVES = 1,
    parameter LONGEST = 32,
    parameter LOCKSTEP = 0,
    parameter WEIGHT_BITS = 16,
    parameter VECTOR_BITS = 16,
    parameter SUM_BITS = 32,
    parameter OUT_BITS = 16,
    parameter DEPTH_BITS = 12,
    parameter WORDS = 1 << DEPTH_BITS,
    parameter LEFT = 0,
    parameter signed [7:0] SHIFT = 0,
    parameter PER_ROW = 0,
    // Words of every processing element, DEPTH_BITS + 1 bits each, the first in the lowest bits.
    parameter [M*(DEPTH_BITS+1)-1:0] COUNTS = 0,
    parameter WEIGHTS = "mem/weights_",
    parameter CONSTANTS = "mem/constants_",
    parameter WEIGHT_STYLE = "auto",
    parameter WEIGHT_STYLE_INTEL = "",
    parameter VECTOR_STYLE = "auto",
    parameter VECTOR_STYLE_INTEL = ""
) (
    input wire clk,
    input wire rst,
    input wire x_valid,
    output wire x_ready,
    input wire [N*VECTOR_BITS-1:0] x_data,
    output wire busy,
    output wire done,
    output wire [31:0] cycles,
    output wire y_valid,
    input wire y_ready,
    output wire [M*OUT_BITS-1:0] y_data,
    output wire y_last
);
  localparam INDEX_BITS = LONGEST > 1 ? $clog2(LONGEST) : 1;
  localparam WAVE_BITS = WAVES > 1 ? $clog2(WAVES) : 1;

  wire start, write, write_half, read_half, result_half, drain, drain_half;
  wire [INDEX_BITS-1:0] index;
  wire [WAVE_BITS-1:0] wave;
  wire [M-1:0] result_valid;
  wire [M*SUM_BITS-1:0] sums;
  wire finished;
  wire take = y_valid && y_ready;
  wire drained = take && y_last;

  sequencer #(
      .BEATS(WAVES * LONGEST),
      .INNER(LONGEST),
      .INNER_BITS(INDEX_BITS),
      .OUTER_BITS(WAVE_BITS)
  ) control (
      .clk(clk),
      .rst(rst),
      .ready(!rst),
      .x_valid(x_valid),
      .x_ready(x_ready),
      .write(write),
      .write_half(write_half),
      .inner(index),
      .outer(wave),
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

  bank_engine #(
      .M(M),
      .N(N),
      .WIDTH(WEIGHT_BITS),
      .VECTOR_BITS(VECTOR_BITS),
      .INDEX_BITS(INDEX_BITS),
      .WAVE_BITS(WAVE_BITS),
      .SUM_BITS(SUM_BITS),
      .DEPTH_BITS(DEPTH_BITS),
      .WORDS(WORDS),
      .PRELOADED(1),
      .WEIGHTS(WEIGHTS),
      .WEIGHT_STYLE(WEIGHT_STYLE),
      .WEIGHT_STYLE_INTEL(WEIGHT_STYLE_INTEL),
      .VECTOR_STYLE(VECTOR_STYLE),
      .VECTOR_STYLE_INTEL(VECTOR_STYLE_INTEL)
  ) engine (
      .clk(clk),
      // A reset is a start with nothing to do.
      .start(start || rst),
      .lockstep(LOCKSTEP != 0),
      .counts(rst ? {(M * (DEPTH_BITS + 1)) {1'b0}} : COUNTS),
      .weight_write({M{1'b0}}),
      .weight_address({DEPTH_BITS{1'b0}}),
      .weight_data({(1 + WAVE_BITS + N * (INDEX_BITS + WEIGHT_BITS)) {1'b0}}),
      .half(read_half),
      .vector_write({N{write}}),
      .vector_address({N{write_half, wave, index}}),
      .vector_data(x_data),
      .result_valid(result_valid),
      .results(sums)
  );

  outputs #(
      .LANES(M),
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
      .sum_valid(result_valid),
      .sums(sums),
      .complete(finished),
      .drain(drain),
      .drain_half(drain_half),
      .take(take),
      .valid(y_valid),
      .last(y_last),
      .results(y_data)
  );
endmodule
