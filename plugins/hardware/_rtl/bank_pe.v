// One processing element of the bank engine: N lanes, one kept weight per lane and cycle.
//
// A weight word holds, from the top: end of row, wave, and for every lane an index and a value. Lane n reads its own
// vector RAM at {half, wave, index}: bank `wave * N + n` of the row. The vector RAM has two halves: while one is read,
// the next vector is written to the other.
// Lanes without a weight in this word hold value 0.
// A result appears ceil(log2 N) + 3 cycles after the word that ends its row was issued.
module bank_pe #(
    parameter N = 16,
    parameter WIDTH = 16,
    parameter VECTOR_BITS = WIDTH,
    parameter INDEX_BITS = 5,
    parameter WAVE_BITS = 3,
    parameter SUM_BITS = 48,
    parameter DEPTH_BITS = 9,
    parameter WORDS = 1 << DEPTH_BITS,
    parameter PRELOADED = 0,
    parameter INIT = "",
    parameter integer NUMBER = -1,
    parameter WEIGHT_STYLE = "auto",
    parameter WEIGHT_STYLE_INTEL = "",
    parameter VECTOR_STYLE = "auto",
    parameter VECTOR_STYLE_INTEL = "",
    parameter WORD_BITS = 1 + WAVE_BITS + N * (INDEX_BITS + WIDTH)
) (
    input wire clk,
    input wire start,
    input wire [DEPTH_BITS:0] count,
    // In lockstep a PE keeps the word that ends its row until every PE has come that far.
    input wire lockstep,
    input wire together,
    output wire at_end,
    input wire weight_write,
    input wire [DEPTH_BITS-1:0] weight_address,
    input wire [WORD_BITS-1:0] weight_data,
    input wire half,
    // Every lane has a write port of its own.
    input wire [N-1:0] vector_write,
    input wire [N*(1+WAVE_BITS+INDEX_BITS)-1:0] vector_address,
    input wire [N*VECTOR_BITS-1:0] vector_data,
    output reg result_valid,
    output reg signed [SUM_BITS-1:0] result
);
  localparam LANE_BITS = INDEX_BITS + WIDTH;
  localparam LEVELS = $clog2(N);
  localparam STAGES = LEVELS + 2;  // vector read, multiplier, adder tree

  wire valid, finished;
  wire [WORD_BITS-1:0] word;
  wire last = word[WORD_BITS-1];
  wire [WAVE_BITS-1:0] wave = word[WORD_BITS-2-:WAVE_BITS];
  wire issue = valid && !(lockstep && last && !together);

  assign at_end = finished || (valid && last);

  stream #(
      .WIDTH(WORD_BITS),
      .DEPTH_BITS(DEPTH_BITS),
      .WORDS(WORDS),
      .PRELOADED(PRELOADED),
      .INIT(INIT),
      .NUMBER(NUMBER),
      .STYLE(WEIGHT_STYLE),
      .STYLE_INTEL(WEIGHT_STYLE_INTEL)
  ) weights (
      .clk(clk),
      .start(start),
      .first({DEPTH_BITS{1'b0}}),
      .count(count),
      .write(weight_write),
      .write_address(weight_address),
      .write_data(weight_data),
      .take(issue),
      .valid(valid),
      .word(word),
      .finished(finished)
  );

  localparam PRODUCT_BITS = WIDTH + VECTOR_BITS;
  wire [N*PRODUCT_BITS-1:0] products;
  genvar lane;
  generate
    for (lane = 0; lane < N; lane = lane + 1) begin : lanes
      wire [LANE_BITS-1:0] entry = word[lane*LANE_BITS+:LANE_BITS];
      wire [VECTOR_BITS-1:0] read;
      wire signed [VECTOR_BITS-1:0] operand = read;
      reg signed [WIDTH-1:0] weight;
      reg signed [PRODUCT_BITS-1:0] product;

      ram #(
          .WIDTH(VECTOR_BITS),
          .DEPTH_BITS(WAVE_BITS + INDEX_BITS + 1),
          .STYLE(VECTOR_STYLE),
          .STYLE_INTEL(VECTOR_STYLE_INTEL)
      ) vector (
          .clk(clk),
          .write(vector_write[lane]),
          .write_address(vector_address[lane*(1+WAVE_BITS+INDEX_BITS)+:1+WAVE_BITS+INDEX_BITS]),
          .write_data(vector_data[lane*VECTOR_BITS+:VECTOR_BITS]),
          .read(issue),
          .read_address({half, wave, entry[LANE_BITS-1:WIDTH]}),
          .read_data(read)
      );
      always @(posedge clk) begin
        weight <= entry[WIDTH-1:0];
        product <= weight * operand;
      end
      assign products[lane*PRODUCT_BITS+:PRODUCT_BITS] = product;
    end
  endgenerate

  wire signed [PRODUCT_BITS+LEVELS-1:0] sum;
  adder_tree #(
      .N(N),
      .WIDTH(PRODUCT_BITS)
  ) tree (
      .clk(clk),
      .terms(products),
      .sum(sum)
  );

  // What is known of a word travels beside it: bit 0 is the word issued in the last cycle.
  reg [STAGES-1:0] issued, ends;
  reg signed [SUM_BITS-1:0] partial;
  // Signed operands: a narrower sum is extended by its sign, a wider one wraps around.
  wire [SUM_BITS-1:0] term;
  wire [PRODUCT_BITS+LEVELS-1:0] unused_high;
  assign {unused_high, term} = {{SUM_BITS{sum[PRODUCT_BITS+LEVELS-1]}}, sum};
  wire signed [SUM_BITS-1:0] total = partial + term;

  always @(posedge clk) begin
    issued <= {issued[STAGES-2:0], issue};
    ends <= {ends[STAGES-2:0], issue && last};
    result_valid <= ends[STAGES-1];
    // Changes with a row only: a simulator, and a chip, work no more than they must.
    if (ends[STAGES-1]) result <= total;
    if (start) begin
      issued <= 0;
      ends <= 0;
      partial <= 0;
      result_valid <= 0;
    end else if (issued[STAGES-1]) partial <= ends[STAGES-1] ? 0 : total;
  end
endmodule
