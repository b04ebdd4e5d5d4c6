// Lets products follow each other: while one runs, the next vector is taken in and the last result is read out.
//
// The vector memory and the result memory have two halves each. A product starts as soon as a vector is complete, a
// half of the result memory is free and the product before it is done. Vectors come in BEATS beats that are counted as
// `outer * INNER + inner`.
module sequencer #(
    parameter BEATS = 16,
    parameter INNER = BEATS,
    parameter INNER_BITS = 4,
    parameter OUTER_BITS = 1
) (
    input wire clk,
    input wire rst,
    // Whether the engine has come out of its reset.
    input wire ready,
    input wire x_valid,
    output wire x_ready,
    output wire write,
    output reg write_half,
    output reg [INNER_BITS-1:0] inner,
    output reg [OUTER_BITS-1:0] outer,
    // One cycle; then the vector in `read_half` is worked off and results go to `result_half`, until `finished`.
    output reg start,
    output reg read_half,
    output reg result_half,
    input wire finished,
    // One cycle; then the results in `drain_half` are read out, until `drained`.
    output reg drain,
    output reg drain_half,
    input wire drained,
    output wire busy,
    // One cycle after the last result of a product was written, with the cycles from its start to there.
    output reg done,
    output reg [31:0] cycles
);
  localparam COUNT_BITS = $clog2(BEATS + 1);

  reg [1:0] filled, pending;
  reg [COUNT_BITS-1:0] beat;
  reg running, draining;
  reg [31:0] elapsed;

  localparam [31:0] LAST_BEAT = BEATS - 1;
  localparam [31:0] LAST_INNER = INNER - 1;
  wire full = write && beat == LAST_BEAT[COUNT_BITS-1:0];
  wire wraps = inner == LAST_INNER[INNER_BITS-1:0];
  wire finish = running && !start && finished;
  wire go = ready && !running && filled != 0 && pending != 2;

  assign x_ready = ready && filled != 2;
  assign write = x_valid && x_ready;
  assign busy = running || draining || filled != 0 || pending != 0;

  always @(posedge clk) begin
    start <= go;
    drain <= !draining && pending != 0;
    done <= finish;
    elapsed <= go ? 0 : elapsed + 1'b1;
    if (go) running <= 1;
    if (!draining && pending != 0) draining <= 1;
    if (write) begin
      beat <= full ? {COUNT_BITS{1'b0}} : beat + 1'b1;
      inner <= full || wraps ? {INNER_BITS{1'b0}} : inner + 1'b1;
      if (full) outer <= 0;
      else if (wraps) outer <= outer + 1'b1;
    end
    if (full) write_half <= !write_half;
    if (finish) begin
      running <= 0;
      read_half <= !read_half;
      result_half <= !result_half;
      cycles <= elapsed;
    end
    if (drained) begin
      draining <= 0;
      drain_half <= !drain_half;
    end
    filled <= filled + {1'b0, full} - {1'b0, finish};
    pending <= pending + {1'b0, finish} - {1'b0, drained};
    if (rst) begin
      {start, drain, done, running, draining} <= 0;
      {write_half, read_half, result_half, drain_half} <= 0;
      filled <= 0;
      pending <= 0;
      beat <= 0;
      inner <= 0;
      outer <= 0;
      cycles <= 0;
    end
  end
endmodule
