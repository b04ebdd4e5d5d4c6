// Words of a RAM from address `first` on, one per cycle without gaps, each held until it is taken.
// `start` in cycle 0 makes the first word valid in cycle 2.
module stream #(
    parameter WIDTH = 16,
    parameter DEPTH_BITS = 8,
    parameter WORDS = 1 << DEPTH_BITS,
    parameter PRELOADED = 0,
    parameter INIT = "",
    parameter integer NUMBER = -1,
    parameter STYLE = "auto",
    parameter STYLE_INTEL = ""
) (
    input wire clk,
    input wire start,
    input wire [DEPTH_BITS-1:0] first,
    input wire [DEPTH_BITS:0] count,
    input wire write,
    input wire [DEPTH_BITS-1:0] write_address,
    input wire [WIDTH-1:0] write_data,
    input wire take,
    output reg valid,
    output wire [WIDTH-1:0] word,
    output wire finished
);
  reg [DEPTH_BITS-1:0] address;
  reg [  DEPTH_BITS:0] left;

  // The next word is read while this one is taken: a registered read costs no cycle between words.
  wire fetch = left != 0 && (!valid || take);

  assign finished = left == 0 && !valid;

  ram #(
      .WIDTH(WIDTH),
      .DEPTH_BITS(DEPTH_BITS),
      .WORDS(WORDS),
      .PRELOADED(PRELOADED),
      .INIT(INIT),
      .NUMBER(NUMBER),
      .STYLE(STYLE),
      .STYLE_INTEL(STYLE_INTEL)
  ) memory (
      .clk(clk),
      .write(write),
      .write_address(write_address),
      .write_data(write_data),
      .read(fetch),
      .read_address(address),
      .read_data(word)
  );

  always @(posedge clk) begin
    if (start) begin
      address <= first;
      left <= count;
      valid <= 0;
    end else if (fetch) begin
      address <= address + 1'b1;
      left <= left - 1'b1;
      valid <= 1;
    end else if (take) valid <= 0;
  end
endmodule
