// One processing element of the column-FIFO engine: works off the kept weights of one column after another.
//
// A weight word holds, from the top: end of column, row within the PE, value; a column without a kept weight is one
// dummy word of value 0. The activation of a column waits in a FIFO of up to 2**FIFO_BITS entries until the PE takes
// the column up, which frees the entry. Sums stand in a RAM; a sum written in the last cycle is forwarded.
module column_pe #(
    parameter WIDTH = 16,
    parameter VECTOR_BITS = WIDTH,
    parameter ROW_BITS = 7,
    parameter SUM_BITS = 48,
    parameter DEPTH_BITS = 9,
    parameter FIFO_BITS = 3,
    parameter WORDS = 1 << DEPTH_BITS,
    parameter PRELOADED = 0,
    parameter INIT = "",
    parameter integer NUMBER = -1,
    parameter WEIGHT_STYLE = "auto",
    parameter WEIGHT_STYLE_INTEL = "",
    parameter SUM_STYLE = "auto",
    parameter SUM_STYLE_INTEL = "",
    parameter WORD_BITS = 1 + ROW_BITS + WIDTH
) (
    input wire clk,
    input wire start,
    input wire [DEPTH_BITS:0] count,
    input wire weight_write,
    input wire [DEPTH_BITS-1:0] weight_address,
    input wire [WORD_BITS-1:0] weight_data,
    // Entries to use, at most 2**FIFO_BITS, and the kind of "full": 0 compares the count, 1 also sees an entry that is
    // freed in the same cycle, 2 is a register of its own, set one entry early so that nothing waits for the count.
    input wire [FIFO_BITS:0] fifo_depth,
    input wire [1:0] full_flag,
    input wire push,
    input wire signed [VECTOR_BITS-1:0] activation,
    output wire full,
    output wire idle,
    // Reads a sum, whose place is zero two cycles later; only while idle.
    input wire drain,
    input wire [ROW_BITS-1:0] drain_row,
    output wire signed [SUM_BITS-1:0] drained
);
  localparam PRODUCT_BITS = WIDTH + VECTOR_BITS;
  wire word_valid, finished;
  wire [WORD_BITS-1:0] word;
  wire last = word[WORD_BITS-1];

  reg signed [VECTOR_BITS-1:0] waiting[0:(1<<FIFO_BITS)-1];
  reg [FIFO_BITS-1:0] head, tail;
  reg [FIFO_BITS:0] entries;
  reg signed [VECTOR_BITS-1:0] held;
  reg busy, almost_full;

  // A column's first weight is issued in the cycle in which its entry leaves the FIFO.
  wire issue = word_valid && (busy || entries != 0);
  wire pop = issue && !busy;
  wire signed [VECTOR_BITS-1:0] operand = busy ? held : waiting[head];

  wire [FIFO_BITS:0] entries_next = push == pop ? entries : push ? entries + 1'b1 : entries - 1'b1;

  assign full = full_flag == 2 ? almost_full : entries == fifo_depth && !(full_flag == 1 && pop);

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
      .valid(word_valid),
      .word(word),
      .finished(finished)
  );

  always @(posedge clk) begin
    if (push) waiting[tail] <= activation;
    if (start) begin
      head <= 0;
      tail <= 0;
      entries <= 0;
      almost_full <= 0;
      busy <= 0;
    end else begin
      if (push) tail <= tail + 1'b1;
      if (pop) head <= head + 1'b1;
      entries <= entries_next;
      almost_full <= entries_next + 1'b1 >= fifo_depth;
      if (issue) busy <= !last;
    end
    if (pop) held <= waiting[head];
  end

  // Operands, product, read-modify-write of the sum.
  reg valid_1, valid_2, valid_3, clear;
  reg [ROW_BITS-1:0] row_1, row_2, row_3, clear_row;
  reg signed [WIDTH-1:0] weight_1;
  reg signed [VECTOR_BITS-1:0] operand_1;
  reg signed [PRODUCT_BITS-1:0] product;
  reg signed [SUM_BITS-1:0] sum_3;
  wire [SUM_BITS-1:0] stored;
  // The RAM was read while the word before this one was being written.
  wire signed [SUM_BITS-1:0] previous = valid_3 && row_3 == row_2 ? sum_3 : stored;
  // A narrower product is extended by its sign, a wider one wraps around.
  wire [SUM_BITS-1:0] term;
  wire [PRODUCT_BITS-1:0] unused_high;
  assign {unused_high, term} = {{SUM_BITS{product[PRODUCT_BITS-1]}}, product};
  wire signed [SUM_BITS-1:0] sum = previous + term;

  assign idle = finished && !valid_1 && !valid_2;
  assign drained = stored;

  ram #(
      .WIDTH(SUM_BITS),
      .DEPTH_BITS(ROW_BITS),
      .STYLE(SUM_STYLE),
      .STYLE_INTEL(SUM_STYLE_INTEL)
  ) sums (
      .clk(clk),
      .write(valid_2 || clear),
      .write_address(clear ? clear_row : row_2),
      .write_data(clear ? {SUM_BITS{1'b0}} : sum),
      .read(valid_1 || drain),
      .read_address(drain ? drain_row : row_1),
      .read_data(stored)
  );

  always @(posedge clk) begin
    valid_1 <= issue && !start;
    row_1 <= word[WIDTH+:ROW_BITS];
    weight_1 <= word[WIDTH-1:0];
    operand_1 <= operand;
    valid_2 <= valid_1 && !start;
    row_2 <= row_1;
    product <= weight_1 * operand_1;
    valid_3 <= valid_2 && !start;
    row_3 <= row_2;
    sum_3 <= sum;
    clear <= drain;
    clear_row <= drain_row;
  end
endmodule
