// Turns the sums of one processing element, row by row, into the numbers that the next layer reads.
//
//     value = saturate((sum + bias) * 2**-shift), rounded half up; a negative shift multiplies
//
// The sum with its bias wraps around at SUM_BITS, as the accumulator does. Without PER_ROW every row has SHIFT and no
// bias; with it row r has the word r of the file CONSTANTS: a signed shift of 8 bits above a bias of SUM_BITS bits.
// A value appears three cycles after its sum; `row` is then its row within the processing element.
module requantise #(
    parameter SUM_BITS = 32,
    parameter OUT_BITS = 16,
    parameter ROW_BITS = 4,
    parameter ROWS = 1 << ROW_BITS,
    // How far to the left the largest negative shift moves a sum.
    parameter LEFT = 0,
    parameter signed [7:0] SHIFT = 0,
    parameter PER_ROW = 0,
    parameter CONSTANTS = ""
) (
    input wire clk,
    // Before the first row of a product.
    input wire start,
    input wire sum_valid,
    input wire signed [SUM_BITS-1:0] sum,
    output wire value_valid,
    output wire [ROW_BITS-1:0] row,
    output wire signed [OUT_BITS-1:0] value,
    // Rows of this product whose values have left.
    output reg [ROW_BITS:0] done
);
  // Room for the half that rounds, and for what a shift to the left moves out.
  localparam SHIFTED = SUM_BITS + 2 + LEFT;
  localparam WIDE = SHIFTED > OUT_BITS ? SHIFTED : OUT_BITS + 1;
  localparam signed [WIDE-1:0] HIGHEST = {(OUT_BITS - 1) {1'b1}};
  localparam signed [WIDE-1:0] LOWEST = -HIGHEST - 1;

  wire signed [7:0] shift;
  wire signed [SUM_BITS-1:0] bias;

  generate
    if (PER_ROW) begin : per_row
      // Sums come in the order of rows: the constants of the next one are read ahead.
      reg [ROW_BITS:0] at;
      wire [ROW_BITS:0] next = start ? {(ROW_BITS + 1) {1'b0}} : at + sum_valid;
      wire [SUM_BITS+7:0] word;
      always @(posedge clk) at <= next;
      ram #(
          .WIDTH(SUM_BITS + 8),
          .DEPTH_BITS(ROW_BITS),
          .WORDS(ROWS),
          .PRELOADED(1),
          .INIT(CONSTANTS)
      ) constants (
          .clk(clk),
          .write(1'b0),
          .write_address({ROW_BITS{1'b0}}),
          .write_data({(SUM_BITS + 8) {1'b0}}),
          .read(1'b1),
          .read_address(next[ROW_BITS-1:0]),
          .read_data(word)
      );
      assign shift = word[SUM_BITS+:8];
      assign bias = word[SUM_BITS-1:0];
    end else begin : common
      assign shift = SHIFT;
      assign bias = 0;
    end
  endgenerate

  reg signed [SUM_BITS-1:0] total;
  reg signed [7:0] shift_1;
  reg signed [WIDE-1:0] rounded;
  reg signed [OUT_BITS-1:0] saturated;
  reg [2:0] valid;

  wire signed [WIDE-1:0] wide = total;
  wire signed [WIDE-1:0] one = 1;
  wire signed [7:0] half_at = shift_1 - 8'sd1;
  wire signed [7:0] left = -shift_1;

  assign value_valid = valid[2];
  assign value = saturated;
  assign row = done[ROW_BITS-1:0];

  always @(posedge clk) begin
    total <= sum + bias;
    shift_1 <= shift;
    if (shift_1 > 0) rounded <= (wide + (one <<< half_at)) >>> shift_1;
    else rounded <= wide <<< left;
    saturated <= rounded > HIGHEST ? HIGHEST[OUT_BITS-1:0] : rounded < LOWEST ? LOWEST[OUT_BITS-1:0] : rounded[OUT_BITS-1:0];
    valid <= start ? 3'b0 : {valid[1:0], sum_valid};
    if (start) done <= 0;
    else if (value_valid) done <= done + 1'b1;
  end
endmodule
